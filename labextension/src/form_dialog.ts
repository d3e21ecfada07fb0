import { Dialog } from '@jupyterlab/apputils';
import { Widget } from '@lumino/widgets';

import { errorSentence } from './error_sentences';

/** One field of a form: a text box by default, or a text area, a drop-down list or a check box. */
export interface IFormField {
  name: string;
  label: string;
  value?: string;
  placeholder?: string;
  /** Values of a drop-down list. */
  options?: readonly string[];
  /** Height of a text area in lines. */
  rows?: number;
  /** Whether the field is a check box, whose value is `on` or empty. */
  checkbox?: boolean;
}

/** Values of a form by field name, without surrounding white space. */
export type FormValues = Readonly<Record<string, string>>;

/** The value of one field is invalid; the form marks that field and shows the message. */
export class FieldError extends Error {
  constructor(
    readonly field: string,
    message: string
  ) {
    super(message);
  }
}

/** Texts, fields and submit function of a form dialog. */
export interface IFormOptions {
  title: string;
  /** Sentence above the fields. */
  description?: string;
  /** Label of the submit button. */
  acceptLabel: string;
  fields: readonly IFormField[];
  /** Uses the values. If it throws, the form shows the error and stays open, so that no input is lost. */
  submit: (values: FormValues) => Promise<unknown>;
}

/**
 * Shows a form until its values are accepted or the user cancels.
 *
 * @returns whether the values were accepted
 */
export async function showFormDialog(options: IFormOptions): Promise<boolean> {
  const { button } = await new FormDialog(options).launch();
  return button.accept;
}

const ACCEPT_BUTTON = 1;

/** A dialog that closes only after `submit` has accepted the values. */
class FormDialog extends Dialog<FormValues> {
  constructor(options: IFormOptions) {
    const body = new FormBody(options);
    super({
      title: options.title,
      body,
      focusNodeSelector: 'select, input, textarea',
      buttons: [
        Dialog.cancelButton(),
        Dialog.okButton({ label: options.acceptLabel })
      ]
    });
    this._formOptions = options;
    this._formBody = body;
  }

  resolve(index = ACCEPT_BUTTON): void {
    if (index === ACCEPT_BUTTON) {
      void this._submit();
    } else {
      super.resolve(index);
    }
  }

  private async _submit(): Promise<void> {
    if (this._isSubmitting) {
      return; // the button was pressed twice
    }
    this._isSubmitting = true;
    try {
      await this._formOptions.submit(this._formBody.getValue());
    } catch (error) {
      this._formBody.showError(error);
      return;
    } finally {
      this._isSubmitting = false;
    }
    super.resolve(ACCEPT_BUTTON);
  }

  private _isSubmitting = false;
  private _formBody: FormBody;
  private _formOptions: IFormOptions;
}

type Control = HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement;

/** The fields of a form and its error message. */
class FormBody extends Widget implements Dialog.IBodyWidget<FormValues> {
  constructor(options: IFormOptions) {
    super();
    this.addClass('llf-Dialog');
    if (options.description) {
      const about = document.createElement('p');
      about.textContent = options.description;
      this.node.append(about);
    }
    for (const field of options.fields) {
      const control = createControl(field);
      const label = document.createElement('label');
      const caption = document.createElement('span');
      caption.textContent = field.label;
      label.className = field.checkbox
        ? 'llf-Dialog-check'
        : field.rows
          ? 'llf-Dialog-text'
          : '';
      label.append(
        ...(field.checkbox ? [control, caption] : [caption, control])
      );
      this.node.append(label);
      this._controls.set(field.name, control);
    }
    this._error.className = 'llf-Dialog-error';
    this._error.id = 'llf-Dialog-error';
    this._error.setAttribute('role', 'alert');
    this.node.append(this._error);
  }

  /** Returns the values of all fields. */
  getValue(): FormValues {
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

  /** Shows an error, and moves the focus to the field that it is about. */
  showError(error: unknown): void {
    this._error.textContent = errorSentence(error);
    const invalid = error instanceof FieldError ? error.field : null;
    for (const [name, control] of this._controls) {
      if (name === invalid) {
        control.setAttribute('aria-invalid', 'true');
        control.setAttribute('aria-describedby', this._error.id);
        control.focus();
      } else {
        control.removeAttribute('aria-invalid');
        control.removeAttribute('aria-describedby');
      }
    }
  }

  private _controls = new Map<string, Control>();
  private _error = document.createElement('p');
}

function createControl(field: IFormField): Control {
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
    control.type = field.checkbox ? 'checkbox' : 'text';
    control.placeholder = field.placeholder ?? '';
  }
  if (!field.checkbox) {
    control.value = field.value ?? '';
  }
  return control;
}
