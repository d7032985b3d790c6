"""`ddk demo`: a web page on which a run can be tried."""
