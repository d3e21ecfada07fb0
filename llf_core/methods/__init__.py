"""What of a model is trained: one file a method, each a plug-in of the group `llf.methods`."""
