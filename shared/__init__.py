"""What the services have in common; one sub-package for each concern."""
