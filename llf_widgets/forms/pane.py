"""What the panes of a form have in common."""

from __future__ import annotations

import traitlets

from llf_widgets.front_end import FrontEnd
from llf_widgets.view_files import script


class FormPane(FrontEnd):
    """One pane of the form. All panes have the same script, which draws the one that `_pane` names."""

    _esm = script("forms")
    _pane = traitlets.Unicode(help="One of `PANES` in labextension/widgets/forms/view.js").tag(sync=True)
