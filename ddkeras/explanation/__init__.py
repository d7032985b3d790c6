"""Which parts of an image the score depends on: Grad-CAM, Grad-CAM++, occlusion, drawn as overlays."""
