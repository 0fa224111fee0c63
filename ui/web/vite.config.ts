import { defineConfig } from 'vite';

// File names are stable (no hashes): the server answers with ETags, and the
// committed build changes only where its sources did.
export default defineConfig({
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } } as never,
  build: {
    outDir: '../dist',
    emptyOutDir: true,
    target: 'es2022',
    modulePreload: { polyfill: false },
    assetsDir: 'a',
    assetsInlineLimit: 0,
    rollupOptions: {
      output: { entryFileNames: 'a/app.js', chunkFileNames: 'a/[name].js', assetFileNames: 'a/[name][extname]' },
    },
  },
});
