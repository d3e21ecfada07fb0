// Runs code in a cell of the page that shows a view.

import { cellNotRunSentence } from '../../src/error_sentences';
import { untranslated } from '../../src/untranslated';

/**
 * @typedef {object} Page what LLF's extension offers to the views of a page
 * @property {(code: string) => Promise<unknown>} [runCell] runs code in a cell that the reader sees; false if the cell is
 *   in another browser tab, where it has not run
 */

/**
 * Runs code in a cell that the reader sees. It never throws.
 * @param {string} code
 * @param {Page | undefined} page undefined where LLF's extension is not installed (VS Code, Colab)
 * @returns {Promise<string>} what the reader must do instead; empty if the cell runs
 */
export async function runInPageCell(code, page) {
  if (!page?.runCell) {
    return `Run this in a cell: ${code}`;
  }
  try {
    return (await page.runCell(code)) === false
      ? 'Run the cell in the notebook that opened in a new tab.'
      : '';
  } catch (error) {
    return cellNotRunSentence(error, untranslated);
  }
}
