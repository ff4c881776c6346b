"""Pictures, sounds and clips: files of unknown origin, and the encoders that make vectors of them."""
