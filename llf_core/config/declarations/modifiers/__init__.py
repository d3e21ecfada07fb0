"""Changes to the loaded model beside its method."""
