"""A trained run on the hub: its model card, the record of what was published, the upload."""
