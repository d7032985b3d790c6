"""Which parts of an image a score depends on: Grad-CAM, Grad-CAM++ and occlusion, drawn as overlays."""
