"""Fine-tuning methods, one module each; plug-ins of the group `llf.methods`."""
