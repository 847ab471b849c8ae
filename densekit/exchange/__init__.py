"""What published folders hold in other formats than ours: pickled weights into safetensors."""
