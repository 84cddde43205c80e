"""What people see: a blinded sample and their answers."""
