"""Training objectives: one file or folder a stage; `losses/` of the DPO family; `base/` for what all stages share."""
