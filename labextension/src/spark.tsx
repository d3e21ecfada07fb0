import * as React from 'react';

const WIDTH = 44;
const HEIGHT = 16;

/** The shape of a loss, from its first value to its last; the numbers beside it say the rest. */
export function Spark({
  values
}: {
  values: readonly number[];
}): React.JSX.Element | null {
  if (!values.length) {
    return null;
  }
  const low = Math.min(...values);
  const span = Math.max(...values) - low || 1;
  const points = values.map((value, place) => [
    1 + (place / Math.max(1, values.length - 1)) * (WIDTH - 4),
    1 + (1 - (value - low) / span) * (HEIGHT - 2)
  ]);
  const last = points[points.length - 1];
  return (
    <svg
      className="llf-Spark"
      width={WIDTH}
      height={HEIGHT}
      aria-hidden="true"
      focusable="false"
    >
      {points.length > 1 && (
        <polyline points={points.map(point => point.join(',')).join(' ')} />
      )}
      <circle cx={last[0]} cy={last[1]} r="1.5" />
    </svg>
  );
}
