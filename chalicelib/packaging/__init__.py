"""What goes to AWS: the package, the template, each function's rights, and the stack that they become."""
