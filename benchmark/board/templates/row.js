/* The players of the only row. */
  const article = document.querySelector("article.view"), { row } = article.dataset;
  new Player(article.querySelector(".player"), data.rows[row]);
  if (data.rows[row].steering) new SteeringPlayer(article.querySelector(".steering"), data.rows[row].steering);
