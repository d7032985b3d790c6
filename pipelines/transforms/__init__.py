"""What is done to pixels: training augmentation on the accelerator, perturbations for measuring, several views."""
