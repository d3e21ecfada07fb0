import { Dialog } from '@jupyterlab/apputils';
import { Widget } from '@lumino/widgets';

/** One value of a form: a line, several lines, a choice or a check box. */
export interface IField {
  name: string;
  label: string;
  value?: string;
  placeholder?: string;
  /** Makes it a choice. */
  options?: readonly string[];
  /** Makes it a text of so many lines. */
  rows?: number;
  /** Makes it a check box; its value is `on` or empty. */
  check?: boolean;
}

/** What a form holds, by the fields' names, without blanks around it. */
export type Values = Readonly<Record<string, string>>;

/** A value that a form does not take. */
export class FieldError extends Error {
  constructor(
    readonly field: string,
    message: string
  ) {
    super(message);
  }
}

export interface IForm {
  title: string;
  /** A sentence above the fields. */
  about?: string;
  /** The button's word. */
  accept: string;
  fields: readonly IField[];
  /** Takes the values. What it throws is shown, and the form stays open. */
  submit: (values: Values) => Promise<unknown>;
}

/**
 * Asks for values until they are taken.
 *
 * @returns whether they were, rather than the form dismissed
 */
export async function askForm(form: IForm): Promise<boolean> {
  const { button } = await new FormDialog(form).launch();
  return button.accept;
}

const ACCEPT = 1;

/** A dialog whose button closes it only once `submit` has taken the values. */
class FormDialog extends Dialog<Values> {
  constructor(form: IForm) {
    const body = new FormBody(form);
    super({
      title: form.title,
      body,
      focusNodeSelector: 'select, input, textarea',
      buttons: [Dialog.cancelButton(), Dialog.okButton({ label: form.accept })]
    });
    this._form = form;
    this._fields = body;
  }

  resolve(index = ACCEPT): void {
    if (index === ACCEPT) {
      void this._submit();
    } else {
      super.resolve(index);
    }
  }

  private async _submit(): Promise<void> {
    if (this._busy) {
      return; // pressed twice
    }
    this._busy = true;
    try {
      await this._form.submit(this._fields.getValue());
    } catch (error) {
      this._fields.refuse(error);
      return;
    } finally {
      this._busy = false;
    }
    super.resolve(ACCEPT);
  }

  private _busy = false;
  private _fields: FormBody;
  private _form: IForm;
}

type Control = HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement;

/** The fields of a form, and what is wrong with them. */
class FormBody extends Widget implements Dialog.IBodyWidget<Values> {
  constructor(form: IForm) {
    super();
    this.addClass('llf-Dialog');
    if (form.about) {
      const about = document.createElement('p');
      about.textContent = form.about;
      this.node.append(about);
    }
    for (const field of form.fields) {
      const control = makeControl(field);
      const label = document.createElement('label');
      const words = document.createElement('span');
      words.textContent = field.label;
      label.className = field.check
        ? 'llf-Dialog-check'
        : field.rows
          ? 'llf-Dialog-text'
          : '';
      label.append(...(field.check ? [control, words] : [words, control]));
      this.node.append(label);
      this._controls.set(field.name, control);
    }
    this._error.className = 'llf-Dialog-error';
    this._error.id = 'llf-Dialog-error';
    this._error.setAttribute('role', 'alert');
    this.node.append(this._error);
  }

  getValue(): Values {
    const values: Record<string, string> = {};
    for (const [name, control] of this._controls) {
      const unchecked =
        control instanceof HTMLInputElement &&
        control.type === 'checkbox' &&
        !control.checked;
      values[name] = unchecked ? '' : control.value.trim();
    }
    return values;
  }

  /** Says what is wrong, and leads to the field. */
  refuse(error: unknown): void {
    this._error.textContent =
      error instanceof Error ? error.message : `${error}`;
    const wrong = error instanceof FieldError ? error.field : null;
    for (const [name, control] of this._controls) {
      control.toggleAttribute('aria-invalid', name === wrong);
      if (name === wrong) {
        control.setAttribute('aria-invalid', 'true');
        control.setAttribute('aria-describedby', this._error.id);
        control.focus();
      } else {
        control.removeAttribute('aria-describedby');
      }
    }
  }

  private _controls = new Map<string, Control>();
  private _error = document.createElement('p');
}

function makeControl(field: IField): Control {
  const kind = field.options ? 'select' : field.rows ? 'textarea' : 'input';
  const control = document.createElement(kind);
  control.className = 'jp-mod-styled';
  control.name = field.name;
  for (const option of field.options ?? []) {
    control.append(new Option(option));
  }
  if (control instanceof HTMLTextAreaElement) {
    control.rows = field.rows ?? 1;
  }
  if (control instanceof HTMLInputElement) {
    control.type = field.check ? 'checkbox' : 'text';
    control.placeholder = field.placeholder ?? '';
  }
  if (!field.check) {
    control.value = field.value ?? '';
  }
  return control;
}
