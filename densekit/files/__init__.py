"""Files as such: durable writes, hashes, JSON, safetensors; nothing of recipes or runs."""
