"""What the data itself is like: labels that may be wrong, images that do not belong, what more images would bring."""
