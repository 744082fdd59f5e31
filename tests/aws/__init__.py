"""What goes to AWS: package, template and functions, on emulators."""
