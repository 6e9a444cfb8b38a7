// Requests that are tried out carry what the browser asked its user for, or
// the token that is given under "Authorize".
window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#ui",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
