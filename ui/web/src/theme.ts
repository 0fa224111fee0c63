import { effect, signal } from '@preact/signals';

/** theme follows the system until the user chooses. */
export const theme = signal<'dark' | 'light'>(
  (localStorage.getItem('theme') as 'dark' | 'light' | null) ?? (matchMedia('(prefers-color-scheme: light)').matches ? 'light' : 'dark'),
);
effect(() => {
  document.documentElement.classList.toggle('light', theme.value === 'light');
});
export function toggleTheme() {
  theme.value = theme.value === 'dark' ? 'light' : 'dark';
  localStorage.setItem('theme', theme.value);
}
