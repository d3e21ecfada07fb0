import '../widgets/shared/llf.css';
import './panel.css';
