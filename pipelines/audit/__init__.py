"""What a model could cheat with: differences between the files of the two labels, and images that occur twice."""
