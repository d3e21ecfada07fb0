import type { TranslationBundle } from '@jupyterlab/translation';

/** Puts values into a text as the panel's translations do, for the notebook views, which have no translations. */
export const untranslated: Pick<TranslationBundle, '__' | '_n'> = {
  __: (text, ...values) => filled(text, values),
  _n: (text, plural, count, ...values) =>
    filled(count === 1 ? text : plural, [count, ...values])
};

/** Puts the values in place of `%1`, `%2` and so on. */
function filled(text: string, values: readonly unknown[]): string {
  return text.replace(/%(\d+)/g, (place, index) =>
    Number(index) <= values.length ? `${values[Number(index) - 1]}` : place
  );
}
