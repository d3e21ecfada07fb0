"""What the charts of all views share: colors, axes, labels, images. Which charts there are: `llf_core.runs.charts`."""
