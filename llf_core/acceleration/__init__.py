"""The fast path: kernels as pure functions on tensors, tested against plain references, and their installation."""
