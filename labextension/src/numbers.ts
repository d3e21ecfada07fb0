// Numbers as llf_core/runs/formatting.py writes them; tests/number_formats.json holds both to the same cases.

/** A logged number as JSON has it: one that is not finite is spelled out, as in `"NaN"`. */
export type Logged = number | string | null | undefined;

/** Bytes with three digits and a decimal unit: `9.80 MB`. */
export function bytes(logged: Logged): string {
  return finite(logged, size);
}

function size(amount: number): string {
  for (const [unit, factor] of [
    ['TB', 1e12],
    ['GB', 1e9],
    ['MB', 1e6],
    ['kB', 1e3]
  ] as const) {
    const scaled = Number((amount / factor).toPrecision(3));
    if (scaled >= 1) {
      return `${fixed(scaled, Math.max(0, 2 - Math.floor(Math.log10(scaled))))} ${unit}`;
    }
  }
  return `${fixed(amount, 0)} bytes`;
}

/** A quantity, such as a loss: four digits, at most four decimals; below 0.001 two and an exponent. */
export function quantity(logged: Logged): string {
  return finite(logged, value => {
    const size = Math.abs(value);
    if (size === 0) {
      return '0';
    }
    if (size < 1e-3 || size >= 1e9) {
      return exponent(value, 1);
    }
    const power = Number(size.toExponential(3).split('e')[1]);
    return fixed(value, Math.min(4, Math.max(0, 3 - power)));
  });
}

/** A learning rate: at most three digits, below 0.01 with an exponent: `5e-5`, `0.05`. */
export function rate(logged: Logged): string {
  return finite(logged, value =>
    value !== 0 && Math.abs(value) < 0.01
      ? exponent(value, 2)
      : `${Number(value.toPrecision(3))}`
  );
}

/** A whole count with its thousands separated: `571,455`. */
export function count(logged: Logged): string {
  return finite(logged, value => fixed(value, 0));
}

/** A share, from 0 to 1, in percent: `83 %`. */
export function share(logged: Logged): string {
  return finite(logged, value => `${fixed(100 * value, 0)} %`);
}

/** Seconds as `0:12`, `7:10`, `2:03:11` or `3 d 4 h`. */
export function duration(seconds: number): string {
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

function finite(logged: Logged, write: (value: number) => string): string {
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

/** With so many decimals and the thousands separated; not by `toLocaleString`, which rounds otherwise. */
function fixed(value: number, decimals: number): string {
  const [whole, rest] = value.toFixed(decimals).split('.');
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ',');
  return rest === undefined ? grouped : `${grouped}.${rest}`;
}

/** With an exponent, and without zeros that say nothing: `5e-5`. */
function exponent(value: number, decimals: number): string {
  const [mantissa, power] = value.toExponential(decimals).split('e');
  return `${Number(mantissa)}e${Number(power)}`;
}
