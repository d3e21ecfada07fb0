"""Stages that sample completions and learn from rewards by TRL's trainers: GRPO and RLOO."""
