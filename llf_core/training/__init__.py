"""How a run is carried out: one attempt from its folder to its final state, the trainer and its callbacks."""
