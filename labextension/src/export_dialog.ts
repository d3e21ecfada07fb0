import type { TranslationBundle } from '@jupyterlab/translation';

import type { IRun } from './api';
import {
  showFormDialog,
  FieldError,
  type FormValues,
  type IFormField
} from './form_dialog';
import { displayName } from './format';

/** Formats in the order of the list; `llf_core/export/format.py` has them. */
const FORMATS = [
  'merged',
  'adapter',
  'gguf',
  'gguf-adapter',
  'int8',
  'int4',
  'gptq',
  'awq'
] as const;
const QUANTIZATION = /^[A-Za-z0-9_]{1,20}$/;

/**
 * Asks for format and folder, and returns the code that exports the run.
 *
 * @param runsFolder - the folder of all runs; its own folder is where an export can be downloaded from
 * @returns the code for a cell; null if the user cancels
 */
export async function showExportDialog(
  run: IRun,
  runsFolder: string | undefined,
  trans: TranslationBundle
): Promise<string | null> {
  let code: string | null = null;
  await showFormDialog({
    title: trans.__('Export “%1”', displayName(run)),
    description: trans.__(
      'Writes the model to a folder, and compares what was written with the live model. merged: a whole model. adapter: only what was trained. gguf: for llama.cpp, Ollama and LM Studio. The others: a quantized model for transformers.'
    ),
    acceptLabel: trans.__('Export'),
    fields: [
      {
        name: 'format',
        label: trans.__('Format'),
        options: FORMATS,
        value: 'merged'
      },
      {
        name: 'quantizations',
        label: trans.__('Quantizations (gguf)'),
        placeholder: trans.__('for example f16, Q8_0, Q4_K_M')
      },
      {
        name: 'folder',
        label: trans.__('Folder'),
        placeholder: trans.__('a new folder beside the notebook')
      },
      ...(runsFolder ? [insideField(trans)] : [])
    ],
    submit: async values => {
      code = exportCode(run.id, values, trans, runsFolder);
    }
  });
  return code;
}

/** The check box that places the export where the panel can download it. */
function insideField(trans: TranslationBundle): IFormField {
  return {
    name: 'inside',
    label: trans.__('In the folder of the run, for download'),
    checkbox: true
  };
}

/**
 * Returns the Python code that exports a run. A kernel executes it, because the server loads no models.
 *
 * @param values - the values of the dialog
 * @throws {FieldError} if the quantizations are not names, or do not fit the format or the folder
 */
export function exportCode(
  id: string,
  values: FormValues,
  trans: TranslationBundle,
  runsFolder = ''
): string {
  const { format, quantizations = '', folder = '', inside = '' } = values;
  const names = quantizations.split(/[\s,]+/).filter(name => name);
  if (names.length && format !== 'gguf') {
    throw new FieldError(
      'quantizations',
      trans.__('The format %1 has no quantizations. Expected gguf.', format)
    );
  }
  const wrong = names.find(name => !QUANTIZATION.test(name));
  if (wrong !== undefined) {
    throw new FieldError(
      'quantizations',
      trans.__(
        '“%1” is not a quantization. Expected names such as f16, Q8_0 or Q4_K_M.',
        wrong
      )
    );
  }
  if (inside && folder) {
    throw new FieldError(
      'folder',
      trans.__(
        'Expected no folder, or no check mark: the export goes to one place.'
      )
    );
  }
  const place = inside ? `${runsFolder}/${id}/exports/${format}` : folder;
  return `llf.export("${id}", format="${format}"${
    names.length
      ? `, quantizations=[${names.map(name => `"${name}"`).join(', ')}]`
      : ''
  }${place ? `, folder=${pythonString(place)}` : ''})`;
}

/** Returns a Python literal of a text; the escapes of JSON mean the same in Python. */
function pythonString(text: string): string {
  return JSON.stringify(text);
}
