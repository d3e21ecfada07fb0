import * as React from 'react';

/** A sentence whose parts in backticks are shown as code. */
export function CodeText({ text }: { text: string }): React.JSX.Element {
  return (
    <>
      {text
        .split('`')
        .map((part, index) =>
          index % 2 === 0 ? part : <code key={index}>{part}</code>
        )}
    </>
  );
}
