// Requests that are tried out carry what the browser asked its user for, or
// the token that is given under "Authorize". The address is put together
// without a user name that may be in the page's own, which fetch would refuse.
window.ui = SwaggerUIBundle({
  url: new URL("openapi.json", location.origin + location.pathname).href,
  dom_id: "#ui",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
