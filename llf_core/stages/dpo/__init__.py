"""Direct preference optimization (DPO) and its family."""
