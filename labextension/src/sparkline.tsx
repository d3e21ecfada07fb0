import * as React from 'react';

const WIDTH = 44;
const HEIGHT = 16;

/** A small curve of losses or rewards without axes; the row shows the last value beside it. */
export function Sparkline({
  values
}: {
  values: readonly number[];
}): React.JSX.Element | null {
  if (!values.length) {
    return null;
  }
  const low = Math.min(...values);
  const span = Math.max(...values) - low || 1;
  const points = values.map((value, index) => [
    1 + (index / Math.max(1, values.length - 1)) * (WIDTH - 4),
    1 + (1 - (value - low) / span) * (HEIGHT - 2)
  ]);
  const last = points[points.length - 1];
  return (
    <svg
      className="llf-Sparkline"
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
