// Stroke icons on a 24 px grid, drawn for this page.
const paths = {
  overview: 'M3 12l9-8 9 8M5 10v10h14V10',
  alerts: 'M6 16V11a6 6 0 0112 0v5l2 2H4zM10 21h4',
  logs: 'M4 6h16M4 10h11M4 14h14M4 18h8',
  metrics: 'M3 19h18M4 15l5-6 4 4 7-9',
  dash: 'M4 4h7v9H4zM13 4h7v5h-7zM4 15h7v5H4zM13 11h7v9h-7z',
  nodes: 'M4 5h16v5H4zM4 14h16v5H4zM7.5 7.5h.01M7.5 16.5h.01',
  pods: 'M12 3l8 4.5v9L12 21l-8-4.5v-9z',
  clock: 'M12 7v5l3 2M12 3a9 9 0 100 18 9 9 0 000-18z',
  search: 'M11 4a7 7 0 100 14 7 7 0 000-14zM16 16l5 5',
  zoomout: 'M11 4a7 7 0 100 14 7 7 0 000-14zM16 16l5 5M8 11h6',
  filter: 'M4 5h16l-6 8v6l-4-2v-4z',
  chev: 'M7 10l5 5 5-5',
  right: 'M10 6l6 6-6 6',
  x: 'M6 6l12 12M18 6L6 18',
  mute: 'M6 16V11a6 6 0 019-5.2M18 11v5l2 2H9M10 21h4M4 4l16 16',
  link: 'M10 14a4 4 0 005.7 0l3-3a4 4 0 00-5.7-5.7l-1 1M14 10a4 4 0 00-5.7 0l-3 3A4 4 0 0011 18.7l1-1',
  sun: 'M12 9a3 3 0 100 6 3 3 0 000-6zM12 2v3M12 19v3M2 12h3M19 12h3M5 5l2 2M17 17l2 2M5 19l2-2M17 7l2-2',
  down: 'M12 5v14M6 13l6 6 6-6',
  out: 'M14 4h5v16h-5M15 12H4M8 8l-4 4 4 4',
  save: 'M12 4v11M7 10l5 5 5-5M5 20h14',
};
export type IconName = keyof typeof paths;

export const Icon = ({ name, small }: { name: IconName; small?: boolean }) => (
  <svg class={small ? 'i s' : 'i'} viewBox="0 0 24 24" aria-hidden="true"><path d={paths[name]} /></svg>
);

export const Logo = () => (
  <svg width="26" height="26" viewBox="0 0 26 26" aria-hidden="true">
    <path d="M3 19.2h20" class="logo-perch" />
    <path d="M8.2 17.2c-.6-5.2 2.2-9.6 6.4-10 2.3-.2 3.9 1.1 4.3 2.7l3.1.9-3 1.5c-.3 3-2.4 4.9-5.6 4.9z" class="logo-bird" />
    <circle cx="15.7" cy="9.9" r="1" class="logo-eye" />
  </svg>
);
