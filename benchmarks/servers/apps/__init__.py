"""The baseline servers themselves, as their authors would write them."""
