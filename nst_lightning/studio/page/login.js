// The form for the token, which answers a wrong one in its place.

import * as api from "./api.js";
import { $, show, write } from "./dom.js";

$("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await api.login($("token").value);
    location.reload();
  } catch (error) {
    write($("error-token"), error.message);
    show($("error-token"), true);
    $("token").setAttribute("aria-invalid", "true");
    $("token").select();
  }
});
