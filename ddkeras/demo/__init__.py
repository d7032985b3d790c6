"""`ddk demo`: a web page to try a run on uploads."""
