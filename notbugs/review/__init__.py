"""What people see: a blinded sample of images, and reviewers' answers."""
