"""Image transforms: training augmentation on the accelerator, perturbations for evaluation, several views."""
