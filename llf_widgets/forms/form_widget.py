from __future__ import annotations

import traitlets

from llf_widgets.front_end import FrontEnd
from llf_widgets.view_files import script, text


class FormWidget(FrontEnd):
    """One widget of the form. All share one ES module, which renders the component that `_component` names."""

    _esm = text(script("forms"))
    _component = traitlets.Unicode(help="One of `COMPONENTS` in labextension/widgets/forms/view.js").tag(sync=True)
