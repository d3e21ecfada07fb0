// Local dates and times for the panel and the notebook views, of 24 hours as all times of LLF. `hour12: false` would
// write 24:05 for five past midnight.

/** Formats a time in ISO 8601 as a date with hours and minutes. */
export function formatDate(made: string): string {
  const when = new Date(made);
  return Number.isNaN(when.getTime())
    ? made
    : when.toLocaleString([], {
        dateStyle: 'medium',
        timeStyle: 'short',
        hourCycle: 'h23'
      });
}

/** Formats Unix seconds as hours and minutes, with the date if it is not today. */
export function formatTime(seconds: number): string {
  const when = new Date(seconds * 1000);
  const time = when.toLocaleTimeString([], {
    hour: '2-digit',
    minute: '2-digit',
    hourCycle: 'h23'
  });
  if (when.toDateString() === new Date().toDateString()) {
    return time;
  }
  return `${when.toLocaleDateString([], { day: 'numeric', month: 'short' })}, ${time}`;
}
