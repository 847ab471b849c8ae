"""The data doctor: everything that is wrong or odd about an annotation file and its images."""
