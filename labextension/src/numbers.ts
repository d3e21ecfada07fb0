// Formats numbers as llf_core/runs/formatting.py does. Both are tested with the cases of tests/number_formats.json.

/** A logged number of the server's JSON. A value that is not finite is a string such as `"NaN"`. */
export type LoggedValue = number | string | null | undefined;

/** Formats bytes with three digits and a decimal unit: `9.80 MB`. */
export function formatBytes(logged: LoggedValue): string {
  return formatFinite(logged, scaleBytes);
}

function scaleBytes(amount: number): string {
  for (const [unit, factor] of [
    ['TB', 1e12],
    ['GB', 1e9],
    ['MB', 1e6],
    ['kB', 1e3]
  ] as const) {
    const scaled = Number((amount / factor).toPrecision(3));
    if (scaled >= 1) {
      return `${toFixedGrouped(scaled, Math.max(0, 2 - Math.floor(Math.log10(scaled))))} ${unit}`;
    }
  }
  return `${toFixedGrouped(amount, 0)} bytes`;
}

/** Formats a metric such as a loss: four digits and at most four decimals; below 0.001 two digits and an exponent. */
export function formatNumber(logged: LoggedValue): string {
  return formatFinite(logged, value => {
    const size = Math.abs(value);
    if (size === 0) {
      return '0';
    }
    if (size < 1e-3 || size >= 1e9) {
      return toExponent(value, 1);
    }
    const power = Number(size.toExponential(3).split('e')[1]);
    return toFixedGrouped(value, Math.min(4, Math.max(0, 3 - power)));
  });
}

/** Formats a learning rate: at most three digits, below 0.01 with an exponent: `5e-5`, `0.05`. */
export function formatRate(logged: LoggedValue): string {
  return formatFinite(logged, value =>
    value !== 0 && Math.abs(value) < 0.01
      ? toExponent(value, 2)
      : `${Number(value.toPrecision(3))}`
  );
}

/** Formats a count with thousands separators: `571,455`. */
export function formatCount(logged: LoggedValue): string {
  return formatFinite(logged, value => toFixedGrouped(value, 0));
}

/** Writes a number with its unit, in the singular if the number is 1: `1 token`, `1,200 tokens`. */
export function withUnit(count: LoggedValue, unit: string): string {
  const text = formatCount(count);
  return `${text} ${unit}${text === '1' ? '' : 's'}`;
}

/** Formats a share between 0 and 1 as a percentage: `83 %`. */
export function formatShare(logged: LoggedValue): string {
  return formatFinite(logged, value => `${toFixedGrouped(100 * value, 0)} %`);
}

/** Formats seconds as `0:12`, `7:10`, `2:03:11` or `3 d 4 h`. */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole >= 172_800) {
    return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3600)} h`;
  }
  const two = (value: number): string => `${value}`.padStart(2, '0');
  const minutes = Math.floor(whole / 60);
  return minutes < 60
    ? `${minutes}:${two(whole % 60)}`
    : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`;
}

function formatFinite(
  logged: LoggedValue,
  write: (value: number) => string
): string {
  if (logged === null || logged === undefined) {
    return '–';
  }
  const value = Number(logged);
  if (Number.isNaN(value)) {
    return 'NaN';
  }
  if (!Number.isFinite(value)) {
    return value > 0 ? 'infinity' : '-infinity';
  }
  return write(value);
}

/** Formats with a fixed number of decimals and thousands separators. `toLocaleString` would round differently. */
function toFixedGrouped(value: number, decimals: number): string {
  const [whole, rest] = value.toFixed(decimals).split('.');
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ',');
  return rest === undefined ? grouped : `${grouped}.${rest}`;
}

/** Formats with an exponent and without trailing zeros: `5e-5`. */
function toExponent(value: number, decimals: number): string {
  const [mantissa, power] = value.toExponential(decimals).split('e');
  return `${Number(mantissa)}e${Number(power)}`;
}
