"""Sharing worlds: `worldsim.push` uploads one to the Hugging Face hub, with a model card."""
