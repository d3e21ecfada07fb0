"""Modifiers: changes to the loaded model beside its method."""
