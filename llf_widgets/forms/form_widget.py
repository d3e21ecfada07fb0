"""What the panes of a form have in common."""

from __future__ import annotations

import traitlets

from llf_widgets.front_end import FrontEnd
from llf_widgets.view_files import script


class FormWidget(FrontEnd):
    """One pane of the form. All panes have the same script, which draws the one that `_component` names."""

    _esm = script("forms")
    _component = traitlets.Unicode(help="One of `COMPONENTS` in labextension/widgets/forms/view.js").tag(sync=True)
