"""What Theorem 3 assumes, and what it concludes, measured edit by edit on a model."""
