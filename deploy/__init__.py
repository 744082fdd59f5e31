"""What takes twocloud to AWS, or to an emulator of it."""
