// SPDX-License-Identifier: Apache-2.0
// Sends the token once; the server answers with a session that scripts cannot read.

const field = document.getElementById('token');

async function logIn(token) {
  const body = new URLSearchParams({ token });
  const response = await fetch('/login', { method: 'POST', body });
  if (response.ok) {
    location.replace('/');
    return;
  }
  document.getElementById('refusal').textContent = await response.text();
  field.select();
}

document.getElementById('login').addEventListener('submit', (event) => {
  event.preventDefault();
  logIn(field.value);
});
